"""Commands for maintainers: they regenerate committed files that the pipeline does not make."""
