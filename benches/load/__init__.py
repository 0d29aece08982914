"""Load over loopback: the sidecar against what bounds it, one core for the server and one for the generator.

    python -m benches.load [--seconds 1.5] [--runs 5] [--only P3,P4,P5,P7,P8]

What belongs here: starting real processes, loading them, and counting. The sidecar is `entra-fast serve`; its
provider and the references are small servers of their own (provider.py, references.py). The generator is wrk.
"""
