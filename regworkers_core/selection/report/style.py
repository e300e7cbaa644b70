"""The look of the report's page."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #5b6672; --page: #f5f6f8; --card: #fff; --line: #dde2e7;
  --bad: #b3261e; --bad-bg: #fdecea; --warn: #8a5300; --warn-bg: #fff4e0; --note: #274b73; --note-bg: #e9f1fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --muted: #9aa6b2; --page: #14181d; --card: #1d232a;
  --line: #343d47; --bad: #ffb4ab; --bad-bg: #4a1512; --warn: #ffcf8a; --warn-bg: #40300f; --note: #b5d4f7;
  --note-bg: #16293f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.6rem; margin: 0 0 4px; } h2 { font-size: 1.15rem; margin: 36px 0 8px; }
p { margin: 6px 0; } .muted { color: var(--muted); }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 16px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 16px; min-width: 120px; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.said { border-radius: 6px; padding: 8px 12px; margin: 6px 0; }
.finding { color: var(--bad); background: var(--bad-bg); } .warning { color: var(--warn); background: var(--warn-bg); }
.note { color: var(--note); background: var(--note-bg); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line); }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--muted); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 14px 0; background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 8px; }
img { display: block; width: 100%; height: auto; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; }
dt { color: var(--muted); } dd { margin: 0; }
"""
