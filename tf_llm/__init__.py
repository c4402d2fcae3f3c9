"""tf_llm."""
