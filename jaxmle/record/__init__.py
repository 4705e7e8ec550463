"""The record of a fit: its fields, the explanation of its verdict, its file."""
