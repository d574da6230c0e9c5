"""The paper's claims, tried in the toy world."""
