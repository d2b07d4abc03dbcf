"""The lines that keep promises, each with what it becomes when it is taken out.

`make mutations` takes them out, one at a time (`__main__.py`); each time a test must turn red. A
module here has the lines of one theme; `catalogue.py` names them all.
"""
