"""The test kit: hold, lose and watch locks in the tests of a site."""
