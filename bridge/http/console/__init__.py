"""The pages that people look at: server-rendered, Portuguese first, English beside it.

`application.py` says which path leads where; `page.py` renders; `language.py` has what is said in which
language; `static/` is sent as it is. Each group of pages has a file of its own and templates by its name.
"""
