#version 330 core
// Places triangles; hands on their texture coordinates and colors. Names as pyrender binds them.
layout(location = 0) in vec3 position;
#ifdef TEXCOORD_0_LOC
layout(location = TEXCOORD_0_LOC) in vec2 texcoord_0;
out vec2 at;
#endif
#ifdef COLOR_0_LOC
layout(location = COLOR_0_LOC) in vec4 color_0;
out vec4 tint;
#endif
layout(location = INST_M_LOC) in mat4 inst_m;
uniform mat4 M;
uniform mat4 V;
uniform mat4 P;

void main()
{
    gl_Position = P * V * M * inst_m * vec4(position, 1.0);
#ifdef TEXCOORD_0_LOC
    at = texcoord_0;
#endif
#ifdef COLOR_0_LOC
    tint = color_0;
#endif
}
