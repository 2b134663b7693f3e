"""The review of one visit: what happened when, drawn and played, so that people see why the gate opened."""
