"""Show and share a generator: an HTML page that draws, and the Hugging Face Hub."""
