# Every target makes the virtual environment it needs and installs into it; a second run finds it ready.
DATA ?= ../shared/data
BANKING77 = $(DATA)/intents_banking77/utterances.jsonl.gz
CLINC150 = $(DATA)/intents_clinc150/utterances.jsonl.gz
BING = $(DATA)/queries_bing_covid/by_country_2020-01.tsv.gz
PAIRS = $(foreach name,pairs_negation slots_snips slots_hwu64 pairs_prompt_paraphrase pairs_qqp,$(DATA)/$(name)/pairs.jsonl.gz)
PAIR = --weak gpt-4o-mini-2024-07-18 --strong o1-mini-2024-09-12
INDEX_TEXTS = $(BANKING77) $(CLINC150) $(BING)

.PHONY: help demo newcomer release-check site test lint test-local-model test-chaos test-dashboard test-garbage test-openapi test-soak test-soak-proxy test-clients test-frameworks test-notebooks test-sentence-transformers bench docs clean

help:
	@echo "make demo                        the demo, in .venv"
	@echo "make test                        lint, types and tests, in .venv-test and two smaller ones; the release and the site, built"
	@echo "make lint                        lint and types only"
	@echo "make test-local-model            against a real tiny model in llama.cpp (builds it: about 5 minutes) and transformers (torch)"
	@echo "make test-chaos                  20 processes on one cache, one killed every second, for 60 s"
	@echo "make test-dashboard              clicks through the dashboard in headless Chromium, which must be installed"
	@echo "make test-garbage                10,000 requests of garbage, through real sockets"
	@echo "make test-openapi                fuzzes the proxy's own endpoints by their OpenAPI document"
	@echo "make test-soak                   8 processes on one cache at its budget, for 10 minutes"
	@echo "make test-soak-proxy             30 minutes of mixed load on a proxy at its limits: nothing wrong, nothing grows"
	@echo "make test-sentence-transformers  the encoder extra with its real model (installs torch)"
	@echo "make test-clients                openai of PyPI and openai of npm pass one suite through the proxy (needs Node)"
	@echo "make test-frameworks             LangChain and nine more, each in an environment of its own (needs Node)"
	@echo "make test-notebooks              runs the notebooks of examples"
	@echo "make bench                       the benchmarks; results of record go to benchmarks/results"
	@echo "make newcomer                    the README's first commands in an empty environment, timed"
	@echo "make release-check               wheel and sdist, built, installed into empty environments, used and weighed"
	@echo "make site                        the documentation as a site, in build/site"
	@echo "make docs                        regenerate docs/settings.md and docs/cli.md"

demo:
	@scripts/install .venv cpu
	@.venv/bin/llm-proxy demo

test: lint
	@scripts/test
	@scripts/release-check --only core,cpu --types mypy
	@$(MAKE) --no-print-directory site
	@echo "not run here: make test-local-model (builds llama-cpp-python), test-chaos (60 s), test-dashboard (needs Chromium), test-soak (10 minutes), test-soak-proxy (30 minutes), test-sentence-transformers, test-clients and test-frameworks (Node), test-notebooks, newcomer, release-check of the other extras (both install)"

lint:
	@scripts/install .venv-test cpu dev
	@scripts/check

test-local-model:
	@scripts/install .venv-test cpu dev
	@scripts/local-model
	@LLM_PROXY_REQUIRE_LOCAL_MODEL=1 .venv-test/bin/python -m pytest -rs -m local_model tests

test-chaos:
	@scripts/install .venv-test cpu dev
	@.venv-test/bin/python -m tests.cache.chaos --processes 20 --seconds 60

test-dashboard:
	@scripts/install .venv-browser cpu browser
	@directory=$$(mktemp -d) && .venv-browser/bin/python -m pytest -q -m browser --basetemp "$$directory/shots" \
		tests/faces/dashboard && echo "screenshots: $$directory/shots"

test-garbage:
	@scripts/install .venv-test cpu dev
	@.venv-test/bin/python -m tests.faces.garbage --requests 10000

test-openapi:
	@scripts/install .venv-openapi proxy openapi
	@.venv-openapi/bin/python -m tests.faces.fuzz_openapi

test-soak:
	@scripts/install .venv-test cpu dev
	@directory=$$(mktemp -d) && .venv-test/bin/python -m tests.cache.soak --processes 8 --seconds 600 \
		--budget-bytes 268435456 --directory "$$directory" --plot "$$directory/soak.png" && echo "$$directory/soak.png"

test-soak-proxy:
	@scripts/install .venv-test cpu dev
	@directory=$$(mktemp -d) && .venv-test/bin/python -m tests.faces.soak --plot "$$directory/soak.png" && echo "$$directory/soak.png"

test-sentence-transformers:
	@scripts/install .venv-st cpu,sentence-transformers dev
	@HF_HUB_OFFLINE=1 .venv-st/bin/python -m pytest -m sentence_transformers tests/encode

test-clients:
	@scripts/node-packages .node-clients
	@scripts/install .venv-test cpu dev
	@LLM_PROXY_NODE_MODULES=$(CURDIR)/.node-clients/node_modules .venv-test/bin/python -m pytest -q tests/clients
	@scripts/install .venv-openai2 cpu dev "openai<3"
	@.venv-openai2/bin/python -m pytest -q -m "not clients" tests/clients

test-frameworks:
	@scripts/test-frameworks

test-notebooks:
	@scripts/install .venv-notebooks cpu,notebook,train dev
	@.venv-notebooks/bin/python -m pytest -q -m notebooks tests/notebooks

bench:
	@scripts/install .venv-st cpu,sentence-transformers dev
	@scripts/install .venv-test cpu dev
	@scripts/local-model
	@HF_HUB_OFFLINE=1 .venv-st/bin/python -m benchmarks.encoder --runs 5 --record --queries $(BANKING77) $(CLINC150) $(BING)
	@.venv-test/bin/python -m benchmarks.client --record
	@.venv-test/bin/python -m benchmarks.proxy --record
	@.venv-test/bin/python -m benchmarks.draft --record
	@.venv-test/bin/python -m benchmarks.multiplex --record --plot docs/multiplex.svg
	@.venv-test/bin/python -m benchmarks.eviction --record --queries $(BING) --plot docs/cost_by_cache_size.svg
	@.venv-test/bin/python -m benchmarks.index --record --texts $(INDEX_TEXTS)
	@.venv-test/bin/python -m benchmarks.semantic --record --pairs $(PAIRS)
	@.venv-test/bin/python -m benchmarks.bound --record --seeds 20 --pairs $(wordlist 2,3,$(PAIRS))
	@.venv-test/bin/python -m benchmarks.router --train $(DATA)/router_zeroeval/rows.jsonl.gz $(PAIR)
	@.venv-test/bin/python -m benchmarks.length --train $(DATA)/router_zeroeval/rows.jsonl.gz --model gpt-4o-mini-2024-07-18
	@.venv-test/bin/python -m benchmarks.ways --record --responses $(DATA)/router_zeroeval/weak_responses.jsonl.gz $(PAIR)
	@.venv-test/bin/python -m benchmarks.end_to_end --record --queries $(BANKING77) $(BING)

newcomer:
	@scripts/newcomer

release-check:
	@scripts/release-check

site:
	@scripts/install .venv-docs "" docs
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --quiet --strict -f docs/site/mkdocs.yml
	@scripts/check-site && echo "build/site/index.html"

docs:
	@scripts/install .venv-test cpu dev
	@scripts/docs

clean:
	rm -rf .venv* .node-clients .cache build dist .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
