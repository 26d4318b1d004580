#!/bin/sh
# Any language: ask the proxy instead of the provider. Start it first: llm-proxy serve
# Needs OPENAI_API_KEY here or where the proxy runs.
set -eu
url=${LLM_PROXY_URL:-http://127.0.0.1:8080}

ask() {
    curl --silent --show-error --fail-with-body --include "$url/v1/chat/completions" \
        --header "Content-Type: application/json" \
        ${OPENAI_API_KEY:+--header "Authorization: Bearer $OPENAI_API_KEY"} \
        --data '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why is the sea salty?"}]}' |
        grep -i -e '^cache-status' -e '"content"' -e '^{'
}

echo "first:"
ask
echo "again:"
ask
