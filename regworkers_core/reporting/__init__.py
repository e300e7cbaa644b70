"""HTML pages, Markdown and plots that the reports of all flows share."""
