"use strict";

// Preloaded into the tutorial's program, which listens on port 3000 whatever else runs on this machine: a free
// port takes its place, the same each time, and is printed. Nothing else of the program is touched.

const net = require("node:net");

let moved = 0;
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  if (port !== 3000) return listen.call(this, port, ...rest);
  this.once("listening", () => {
    moved = this.address().port;
    console.log(`moved to ${moved}`);
  });
  return listen.call(this, moved, ...rest);
};
