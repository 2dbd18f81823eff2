"""The pipeline's stages, each a command of its own: download, tensorize, train, evaluate."""
