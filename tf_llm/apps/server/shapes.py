"""What clients ask and what they are answered: the parts of OpenAI's API that a model of text has an answer for.

A field that stands here is obeyed, or is one that changes no text (`user`). What this server cannot do, for instance
tools, images or penalties, is refused rather than passed over, since its answer would be something else than was asked.

See https://platform.openai.com/docs/api-reference
"""

import base64
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError


def expect(words):
    """For a field of several kinds: says which, in place of what is wrong with each of them."""

    def check(value, handle):
        try:
            return handle(value)
        except ValidationError:
            raise PydanticCustomError("kind", "expected {words}", {"words": words}) from None

    return WrapValidator(check)


Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
Texts = Annotated[
    str | Annotated[list[str], Field(min_length=1)] | Ids | Annotated[list[Ids], Field(min_length=1)],
    expect("a text or a list of texts, or of one of them the ids of its tokens"),
]
Name = Annotated[str, Field(max_length=256)]


class Shape(BaseModel):
    """Nothing is guessed: "5" is no number, and neither is NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


# === What is asked ===


class Request(Shape):
    model: Name
    # Of these a client hears nothing, since they concern OpenAI's own business.
    user: Name | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None


class StreamOptions(Shape):
    include_usage: bool | None = False
    include_obfuscation: bool | None = None


class TextRequest(Request):
    """What requests for texts have in common."""

    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(1, ge=1, le=128)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[str | Annotated[list[str], Field(max_length=4)] | None, expect("a text or up to 4 of them")] = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    # Only what changes nothing. A client that sends its defaults is understood.
    presence_penalty: float | None = Field(0.0, ge=0, le=0)
    frequency_penalty: float | None = Field(0.0, ge=0, le=0)
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def check_options(self):
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("options", "stream_options are allowed where stream is true. Received: no stream")
        return self

    @property
    def stops(self):
        """Stop strings, as a tuple without empty ones."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in stops if stop)


class CompletionRequest(TextRequest):
    prompt: Texts
    echo: bool | None = False
    logprobs: int | None = Field(None, ge=0, le=0)  # of what was said; no alternatives
    best_of: int | None = Field(None, ge=1, le=1)
    suffix: None = None


class TextPart(Shape):
    type: Literal["text"]
    text: str


class Message(Shape):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        str | Annotated[list[TextPart], Field(min_length=1)], expect('a text or a list of parts of the type "text"')
    ]
    name: Name | None = None
    refusal: None = None  # stands in the answers of this API, which come back as part of the conversation
    annotations: Annotated[list[str], Field(max_length=0)] | None = None
    audio: None = None
    tool_calls: None = None
    function_call: None = None

    @property
    def text(self):
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ResponseFormat(Shape):
    type: Literal["text"]


class ChatRequest(TextRequest):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=0)
    response_format: ResponseFormat | None = None


class EmbeddingRequest(Request):
    input: Texts
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1)


class Base64(Shape):
    """Bytes in JSON, in the manner of TensorFlow Serving: here, UTF-8."""

    b64: str

    @model_validator(mode="after")
    def check_text(self):
        try:
            _ = self.text
        except ValueError:  # of base64 as of UTF-8
            raise PydanticCustomError("base64", "expected UTF-8 text in base64. Received: something else") from None
        return self

    @property
    def text(self):
        return base64.b64decode(self.b64, validate=True).decode("utf-8")


Column = Annotated[
    list[str | Base64], Field(min_length=1), expect('a list of texts, or of {"b64": a text as UTF-8 in base64}')
]


class PredictRequest(Shape):
    """Rows as `instances`, or columns as `inputs`."""

    signature_name: Literal["serving_default", "generate", "embed"] | None = "serving_default"
    instances: Column | None = None
    inputs: Column | None = None

    @model_validator(mode="after")
    def check_one(self):
        if (self.instances is None) == (self.inputs is None):
            raise PydanticCustomError("one", "expected either instances or inputs. Received: none of them, or both")
        return self


# === What is answered ===


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: None = None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class TokenLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[dict] = []


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob] | None
    refusal: None = None


class Answer(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: Answer
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tf_llm"


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Fault(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: Fault


class Predictions(BaseModel):
    predictions: list[str] | list[list[float]]


class Outputs(BaseModel):
    outputs: list[str] | list[list[float]]
