# REDbot's command line, for more than it can be asked: each argument is a case of its own, a list in JSON of a
# method, an address and headers. It prints a HAR for each, in which the answers to REDbot's own further
# requests are linted as well: compressed, in part, and not modified.
import json
import sys

from redbot import cli
from redbot.formatter.har import HarFormatter
from redbot.resource import HttpResource
from redbot.resource.fetch import RedFetcher, RedHttpClient

ask, finish = HttpResource.set_request, HarFormatter.finish_output


def finish_output(self):
    self.resource.linked += [(check, check.check_id) for check in self.resource.subreqs.values()]
    finish(self)


HarFormatter.finish_output = finish_output
for case in sys.argv[1:]:
    method, address, *headers = json.loads(case)
    # The end of a case is the end of its connections, of which a client would not know.
    RedFetcher.client = RedHttpClient()
    HttpResource.set_request = lambda self, address: ask(self, address, method, headers)
    sys.argv = ["redbot", "--output-format", "har", address]
    cli.main()
