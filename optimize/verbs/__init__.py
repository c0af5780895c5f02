"""Floor 0's verbs: thin skins over the library functions of the same names, imported when they are called."""

PANEL = "optimize: make artifacts"
VERBS = {
    "init": "drafting:init",
    "build": "building:build",
    "search": "searching:search",
    "plan": "building:plan",
    "show": "artifacts:show",
    "history": "artifacts:history",
    "verify": "verifying:verify",
    "reproduce": "building:reproduce",
    "parity": "comparing:parity",
    "coverage": "comparing:coverage",
}
