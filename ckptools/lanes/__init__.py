"""The bundled example: a Q-Former lane detector that trains in half a minute on a CPU."""
