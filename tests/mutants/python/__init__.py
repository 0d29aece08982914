"""`make mutants-python`: changes the product in one place at a time, and sees whether a test fails.

What belongs here: which changes are made (mutations.py), how one is brought into a process that has imported
everything already (applying.py), the tests that run against it (running.py), and the report (__main__.py).
parts.toml says which tests are to fail for which modules, survivors.toml why some changes make none fail.

mutmut's operators are used, not its runner: that one leaves out decorated functions, properties and
constants, and needs a copy of the package, for which the extension would have to be built again. Here pytest
collects the tests once, and forks for each mutant.
"""
