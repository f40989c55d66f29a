"""Auditing privacy claims: what an attacker who knows all of it really achieves, beside what was promised."""
