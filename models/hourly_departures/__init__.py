"""How many flights will leave this airport in this hour?"""
