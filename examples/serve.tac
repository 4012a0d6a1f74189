"""Both services in one process: `twistd -n -y examples/serve.tac`. This is what `make serve` runs."""

from twisted.application.service import Application

from uppercase.services import TCPSettings, UDPSettings, tcp_service, udp_service

application = Application("uppercase")
tcp_service(TCPSettings()).setServiceParent(application)
udp_service(UDPSettings()).setServiceParent(application)
