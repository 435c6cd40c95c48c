"""What connects the package to others; nothing else in the package does.

Each module needs the extra of its name, and ``uvicorn`` the extra ``server``.
"""
