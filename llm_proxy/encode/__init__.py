"""Text to vector: the seam (`base`), the shipped encoder (`onnx`), any other (`sentence_transformers`), `lazy`."""
