"""What a fit looks like: text, HTML, LaTeX, Markdown and tidy frames."""
