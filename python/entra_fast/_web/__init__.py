"""What the pages of the emulator and of the token generator share: templates, style sheet, headers, checks.

Anything that only one of them needs belongs in its own package.
"""
