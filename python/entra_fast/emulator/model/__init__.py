"""The content of the manifests and the directory: reads files, and nothing else."""
