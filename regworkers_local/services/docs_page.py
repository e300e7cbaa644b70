"""`/docs` of the four services: the contract as one page that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

# Nothing but what stands in the page itself.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
code { font-size: 14px } td, th { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0 }
h2 { margin-top: 2rem; font-size: 1.1rem } .method { text-transform: uppercase; font-weight: 600 }"""


def docs_page(openapi: dict[str, Any]) -> str:
    """Every operation of an OpenAPI document with its parameters and answers."""
    info = openapi["info"]
    body = "\n".join(_operations(openapi["paths"]))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title><style>{_STYLE}</style></head>
<body><h1>{escape(info["title"])}</h1><p>{escape(info.get("description", ""))}</p>
<p>As a machine reads it, schemas included: <a href="openapi.json">openapi.json</a></p>
{body}
</body></html>
"""


def _operations(paths: dict[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, operation in methods.items():
            yield (
                f'<h2><span class="method">{escape(method)}</span> <code>{escape(path)}</code></h2>'
                f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p><table>"
            )
            for each in operation.get("parameters", ()):
                yield _row(f"{each['name']} ({each['in']})", _type(each.get("schema", {})))
            for status, response in operation.get("responses", {}).items():
                schema = response.get("content", {}).get("application/json", {}).get("schema", {})
                yield _row(status, f"{response.get('description', '')} {_type(schema)}".strip())
            yield "</table>"


def _row(name: str, text: str) -> str:
    return f"<tr><th><code>{escape(name)}</code></th><td>{escape(text)}</td></tr>"


def _type(schema: dict[str, Any]) -> str:
    """The name of a schema, which openapi.json spells out."""
    return str(schema.get("$ref", "")).rpartition("/")[2] or str(schema.get("type", ""))
