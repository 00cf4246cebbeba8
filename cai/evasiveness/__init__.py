"""The reply classifier: does a reply help, engage, moralise, evade or change the subject?"""
