"""The server against its own OpenAPI: requests made from the schema get answers that the schema describes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from serving import Served

pytest.importorskip("schemathesis", reason="the package schemathesis is not installed")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = "200" if os.environ.get("MSMAE_LONG") else "10"


@pytest.mark.slow
def test_no_answer_is_a_fault_or_leaves_the_schema(server: Served) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--checks", CHECKS]
    command += ["--max-examples", EXAMPLES, "--seed", "1", "--generation-database", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Traceback" not in server.log.read_text()


def test_the_schema_names_every_route_and_refusal(server: Served) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/predict", "/embed", "/model", "/health", "/metrics"}
    assert {"200", "401", "403", "408", "413", "422", "503"} <= set(paths["/predict"]["post"]["responses"])
