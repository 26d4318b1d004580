"""The notebook face: ``%load_ext llm_proxy``, ``%%chat`` and ``%llm_proxy``; IPython is imported when it asks."""
