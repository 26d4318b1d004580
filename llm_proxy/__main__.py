"""``python -m llm_proxy``: the same as ``llm-proxy``."""

from llm_proxy.faces.cli import main

if __name__ == "__main__":
    main()
