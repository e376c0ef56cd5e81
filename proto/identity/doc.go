// Package identity says who is who between the planes and the command line, and
// makes sure of it with mutual TLS. Both planes use it.
//
// Everybody has a certificate from one private CA, and it holds its owner's
// identity, a role and a name, as a URI among the alternative names:
//
//	reverseproxy://dataplane/<id>        may subscribe, as the data plane with this id
//	reverseproxy://controlplane/<name>   may be subscribed to
//	reverseproxy://operator/<name>       may use the command line
//
// Host names are not compared. The role in a certificate of a private CA is the
// identity: who has the role controlplane is a control plane, wherever it listens.
// So certificates need no addresses, and a control plane can move, sit behind
// another address or have several without a new one.
//
// Both sides verify the other's certificate (TLS 1.3 only), every time: sessions
// are not resumed, so that a CA that is not trusted any more opens no new
// connection. Which role may call what is decided by the control plane, where the
// refusal can be put into words; an alert of TLS has none.
package identity
