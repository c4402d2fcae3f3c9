"""What is built upon a trained model: a server, and what talks to people through it."""
