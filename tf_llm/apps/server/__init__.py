"""A model behind HTTP, in the shapes that clients of OpenAI and of TensorFlow Serving speak.

app.py         the routes; `build_app` puts everything below together
shapes.py      what is asked and answered, as pydantic models of OpenAI's API
chat.py        messages become one prompt
texts.py       a request for texts becomes jobs, and their events become an answer
events.py      answers piece by piece, and clients that leave
predict.py     the REST shape of TensorFlow Serving
batching.py    one thread, which takes jobs of many requests at once
writing.py     what that thread does with the model
limits.py      who may ask, how much, how long
errors.py      refusals in OpenAI's shape
metrics.py     what Prometheus reads
run.py         listening, and stopping without losing an answer
"""
