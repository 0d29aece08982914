"""What the pages of the emulator and of the token generator share: templates, style sheet, headers, checks.

Whatever only one of them knows or decides belongs there.
"""
