"""What a user's function depends on: watched for changes, digested, and copied where it holds
arrays.
"""
