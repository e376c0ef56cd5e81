// Package accesslog makes lines about requests and hands them from the event
// loops to whoever writes them: package logfile. A loop never waits: it puts its
// lines into a ring of its own, and when there is no room, the line is dropped
// and counted. Making a line and handing it over allocates nothing and locks
// nothing.
//
// It is pure: it knows no files and reads no clock.
package accesslog
