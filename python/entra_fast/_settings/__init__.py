"""Settings: read once from the environment and from files, checked, and frozen.

| module | contents |
|---|---|
| kinds | the forms that a setting's text can have, and how each is parsed |
| catalogue | every setting: name, kind, bounds, default, description, aliases |
| reader | finds a setting's text and parses it |
| secret | secrets, and files that hold a setting |
| model | the frozen classes that the settings become |
| load | the environment in, `Settings` out; checks that concern several settings |

What must never be here: network access, and secrets as bare strings.
"""
