"""The embedded servers that would read everything for a page of it, started so that they use indexes as the real ones
do. Each module takes the arguments of the server that it starts.
"""
