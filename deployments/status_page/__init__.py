"""The status page: how the models are, in one look. `python -m deployments.status_page` writes it ((evergreen page)).

It is one file, var/status/index.html, without anything from elsewhere: it can be opened, mailed and kept. Under
`make up` the watcher keeps it new (keeper.py), and the router shows it at its /status/.

    facts.py        what is shown, read where it is kept
    models.py       a model: what serves, the verdict, retraining, what happened
    monitoring.py   what the monitor found: quality, drift, requests, alarms
    platform.py     the data, and what happens next
    pictures.py     SVG made of numbers;  markup.py  HTML made of functions;  style.py  how it looks
"""
