"""Experts behind the network: what the known text of other chunks tells, mixed bit by bit."""
