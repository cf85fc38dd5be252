"""HMS-SVC: a service mesh whose sidecars are mitmproxy instances. `README.md` here is the map."""
