"""The record of a fit: its fields, the sentence of its verdict, its file."""
