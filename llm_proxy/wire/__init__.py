"""OpenAI's wire format, free of I/O: bytes to values, values to bytes.

`chat` reads requests, `sse` splits event streams, `decode` undoes content codings, `assemble` turns chunks
into a completion, `recorder` does all of that for one upstream body, and `replay` writes a stored completion
again.
"""
