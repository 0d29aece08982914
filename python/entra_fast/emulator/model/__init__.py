"""What the manifests and the directory say: reads files, and nothing else."""
