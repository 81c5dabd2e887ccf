"""The checker of annotations that conftest.py hooks into the package: beartype, for which an int may be a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as PEP 484 says, so that dropout=0 is right
