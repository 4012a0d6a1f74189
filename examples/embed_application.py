from twisted.application.service import Application

from uppercase.services import TCPSettings, UDPSettings, tcp_service, udp_service


def shout(text: str) -> str:
    return text.upper() + "!"


application = Application("shout")
for service in (
    tcp_service(TCPSettings(transforms=["strip", shout], framing="line", port=12001)),
    udp_service(UDPSettings(transforms=["strip", shout], port=12001)),
):
    service.setServiceParent(application)
