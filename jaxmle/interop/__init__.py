"""Adapters between jaxmle and other packages of the field."""
