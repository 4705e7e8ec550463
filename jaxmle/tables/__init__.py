"""Output of a fit: text, HTML, LaTeX, Markdown and tidy frames."""
